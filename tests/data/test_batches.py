"""The order of samples, transforms, pairs and prefetching."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfgnet.data import ArrayRecords, Batches, Prefetch, Source
from cfgnet.errors import DataError


def numbered(count, **arrays):
    """Records whose sample i holds the number i."""
    return ArrayRecords({"data": np.arange(count, dtype=np.float64)[:, None], **arrays})


def images(count, channels=2, height=7, width=6):
    """Images that all differ, in every pixel."""
    size = count * channels * height * width
    return ArrayRecords({"data": np.arange(size, dtype=np.float32).reshape(count, channels, height, width)})


def source(**fields):
    return Source.model_validate({"source": "digits", **fields})


def batches(records, phase="train", seed=1, **fields):
    return Batches(source(**fields), records, phase, seed)


def stream(made, count):
    """The first `count` batches as one list of sample numbers."""
    return [int(n) for i in range(count) for n in made.at(i)["data"].ravel()]


sizes = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(sizes, st.booleans(), st.integers(0, 5))
def test_every_epoch_holds_every_sample_once(size, shuffle, seed):
    count, batch = size
    made = batches(numbered(count), seed=seed, batch_size=batch, shuffle=shuffle)
    read = stream(made, -(-3 * count // batch))
    for first in range(0, 3 * count, count):
        epoch = read[first : first + count]
        assert sorted(epoch) == list(range(count))
        assert shuffle or epoch == list(range(count))


@given(sizes, st.integers(0, 200))
def test_a_batch_is_a_slice_of_the_stream_whoever_asks_and_when(size, iteration):
    count, batch = size
    fields = {"batch_size": batch, "shuffle": True}
    ones = stream(batches(numbered(count), batch_size=1, shuffle=True), 6 * count)
    made = batches(numbered(count), **fields)
    iteration %= 5 * count // batch
    asked_late = made.at(iteration)["data"].ravel()
    assert asked_late.tolist() == ones[iteration * batch : (iteration + 1) * batch]
    made.at(0)
    assert made.at(iteration)["data"].ravel().tolist() == asked_late.tolist()


def test_orders_differ_by_epoch_seed_and_phase():
    made = [
        batches(numbered(50), phase, seed, batch_size=50, shuffle=True)
        for phase, seed in [("train", 1), ("train", 2), ("test", 1)]
    ]
    orders = {tuple(m.at(i)["data"].ravel()) for m in made for i in (0, 1)}
    assert len(orders) == 6


def test_once_gives_file_order_and_a_short_last_batch():
    made = batches(numbered(10), "test", batch_size=4, shuffle=True)
    parts = [part["data"].ravel().tolist() for part in made.once()]
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert made.batches_per_epoch == 3


def test_empty_sets_and_too_large_batches_are_errors():
    with pytest.raises(DataError, match="has no samples"):
        batches(numbered(0), batch_size=1)
    with pytest.raises(DataError, match=r"at most the 3 samples .* found 4; lower batch_size to 3"):
        batches(numbered(3), batch_size=4)
    assert len(batches(numbered(3), batch_size=3).at(0)["data"]) == 3


def test_arrays_are_fresh_contiguous_and_of_the_promised_shape():
    records = ArrayRecords(
        {"data": np.asfortranarray(np.ones((6, 1, 5, 4), ">f8")), "label": np.arange(6, dtype=np.uint8)}
    )
    transform = {"crop_size": 3, "mirror": True, "scale": 2.0}
    made = batches(records, batch_size=4, transform=transform)
    for batch in (made.at(0), made.at(1)):
        assert {
            name: (a.shape, "float" if a.dtype == np.float32 else "int") for name, a in batch.items()
        } == made.tensors
        assert batch["label"].dtype == np.int32
        assert all(a.flags.c_contiguous and a.flags.owndata for a in batch.values())
    made.at(0)["data"][:] = 9
    assert made.at(0)["data"].max() == 2


def test_caffe_order_is_crop_mirror_mean_scale():
    made = batches(images(3), "test", batch_size=3, transform={"crop_size": 4, "mean_value": [1, 2], "scale": 0.5})
    raw = np.arange(3 * 2 * 7 * 6, dtype=np.float32).reshape(3, 2, 7, 6)
    wanted = (raw[:, :, 1:5, 1:5] - np.float32([1, 2]).reshape(1, 2, 1, 1)) * np.float32(0.5)
    np.testing.assert_array_equal(made.at(0)["data"], wanted)


def test_a_test_phase_never_mirrors():
    made = batches(images(8), "test", batch_size=8, transform={"mirror": True})
    np.testing.assert_array_equal(made.at(0)["data"], images(8).take(np.arange(8))["data"])


def test_training_crops_every_window_and_mirrors_half():
    """Every crop is one of the windows or its mirror image, and all of them appear."""
    records = images(1, 1)
    made = batches(records, batch_size=1, transform={"crop_size": 5, "mirror": True})
    raw = records.take(np.arange(1))["data"][0]
    windows = {}
    for top, left, flip in itertools.product(range(3), range(2), range(2)):
        window = raw[:, top : top + 5, left : left + 5]
        windows[(window[..., ::-1] if flip else window).tobytes()] = flip
    seen = [windows[made.at(i)["data"][0].tobytes()] for i in range(300)]
    assert len({made.at(i)["data"][0].tobytes() for i in range(300)}) == 12
    assert 110 < sum(seen) < 190


@given(st.integers(1, 9))
def test_augmentation_does_not_depend_on_the_batch(batch_size):
    fields = {"shuffle": True, "transform": {"crop_size": 3, "mirror": True}}
    alone = batches(images(9), batch_size=1, **fields)
    together = batches(images(9), batch_size=batch_size, **fields)
    wanted = np.concatenate([alone.at(i)["data"] for i in range(3 * batch_size)])
    np.testing.assert_array_equal(np.concatenate([together.at(i)["data"] for i in range(3)]), wanted)


@pytest.mark.parametrize(
    ("records", "transform", "message"),
    [
        (images(2), {"crop_size": 7}, "crop_size expected at most 6 for images of shape 2x7x6, found 7"),
        (images(2), {"mean_value": [1, 2, 3]}, "mean_value expected 1 number or one per channel, found 3"),
        (numbered(2), {"mirror": True}, "mirror expected images"),
        (numbered(2), {"crop_size": 1}, "crop_size expected images"),
        (ArrayRecords({"x": np.ones((2, 3))}), {"scale": 2}, "expected a float tensor 'data' .* found 'x' "),
        (ArrayRecords({"data": np.arange(2)}), {"scale": 2}, "expected a float tensor 'data' .*int"),
    ],
)
def test_a_transform_that_does_not_fit_is_an_error(records, transform, message):
    with pytest.raises(DataError, match=message):
        batches(records, batch_size=1, transform=transform)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60).filter(lambda x: len(set(x)) > 1), st.integers(1, 20))
def test_pairs_are_what_sim_says(labels, batch):
    batch = min(batch, len(labels))
    made = batches(numbered(len(labels), label=np.array(labels)), batch_size=batch, shuffle=True, pairs=True)
    alone = batches(numbered(len(labels), label=np.array(labels)), batch_size=1, shuffle=True, pairs=True)
    assert made.tensors["data_p"] == ((batch, 1), "float") and made.tensors["sim"] == ((batch,), "int")
    position = 0
    for i in range(4):
        pair = made.at(i)
        for first, second, sim, label in zip(
            *(pair[n].ravel().astype(int) for n in ("data", "data_p", "sim", "label")), strict=True
        ):
            assert labels[first] == label
            assert (labels[first] == labels[second]) == sim
            assert first != second or labels.count(label) == 1
            assert alone.at(position)["data_p"].item() == second
            position += 1


def test_half_of_the_pairs_are_similar_and_all_partners_appear():
    labels = np.arange(2000) % 10
    made = batches(numbered(2000, label=labels), batch_size=2000, pairs=True)
    sims = [made.at(i)["sim"].mean() for i in range(5)]
    assert all(0.45 < sim < 0.55 for sim in sims) and len(set(sims)) > 1
    small = batches(numbered(6, label=np.array([0, 0, 0, 1, 1, 2])), batch_size=6, pairs=True)
    seen = {
        (int(a), int(b))
        for i in range(200)
        for a, b in zip(*(small.at(i)[n].ravel() for n in ("data", "data_p")), strict=True)
    }
    assert seen == {(a, b) for a in range(6) for b in range(6) if a != b or a == 5}


def test_both_images_of_a_pair_are_transformed():
    raw = images(4)
    records = ArrayRecords({**raw.arrays, "label": np.array([0, 0, 1, 1])})
    made = batches(records, batch_size=4, pairs=True, transform={"crop_size": 3, "scale": -1})
    batch = made.at(0)
    assert batch["data"].shape == batch["data_p"].shape == (4, 2, 3, 3)
    assert batch["data"].max() <= 0 and batch["data_p"].max() <= 0


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (numbered(3), "expected float 'data' and one int 'label' per sample, found data"),
        (numbered(3, label=np.zeros(3, int)), "at least 2 classes, found only label 0"),
        (numbered(3, label=np.arange(3), sim=np.zeros(3)), "has a tensor 'sim' already"),
    ],
)
def test_pairs_need_labels(records, message):
    with pytest.raises(DataError, match=message):
        batches(records, batch_size=1, pairs=True)


def test_prefetch_gives_the_same_batches_from_any_start():
    made = batches(numbered(10), batch_size=4, shuffle=True)
    with Prefetch(made, 3) as coming:
        for i in range(3, 12):
            assert coming.iteration == i
            np.testing.assert_array_equal(coming.next()["data"], made.at(i)["data"])
    coming.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("cfgnet-data")]


def test_prefetch_prepares_one_ahead_in_another_thread():
    made, ready, callers = batches(numbered(4), batch_size=4), threading.Event(), []
    original = made.at

    def at(iteration):
        callers.append(threading.current_thread())
        if iteration == 1:
            ready.set()
        return original(iteration)

    made.at = at
    with Prefetch(made) as coming:
        coming.next()
        assert ready.wait(5)
    assert threading.main_thread() not in callers


def test_prefetch_raises_in_the_caller():
    made = batches(numbered(4), batch_size=4)
    made.records = None
    with Prefetch(made) as coming, pytest.raises(AttributeError):
        coming.next()


def test_whole_numbers_beyond_32_bits_are_refused():
    with pytest.raises(DataError, match="found 2147483648 in sample 1"):
        numbered(2, label=np.array([0, 2**31]))
    assert numbered(2, label=np.array([0, 2**31 - 1])).take(np.arange(2))["label"][1] == 2**31 - 1


def test_numbers_beyond_float32_become_infinite_without_a_warning():
    assert np.isinf(ArrayRecords({"data": np.array([[1e300]])}).take(np.arange(1))["data"]).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "found none"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "'a' has 2, 'b' has 3"),
        ({"a": np.float64(1)}, "found a single number"),
        ({"a": np.array(["x"])}, "found dtype <U1"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(arrays, message):
    with pytest.raises(DataError, match=message):
        ArrayRecords(arrays)
