"""What a real Caffe computed, against what cfgnet computes."""
