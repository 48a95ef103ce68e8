"""Measurements that users may repeat: ratios against the plain computation in the same run, with bytes and rounds."""
