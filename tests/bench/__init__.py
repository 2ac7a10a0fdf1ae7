"""The speed of cfgnet beside PyTorch's: `make bench`. Nothing here is collected by pytest but `test_bench.py`."""
