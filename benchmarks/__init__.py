"""Measurements that assert nothing: how long things take, beside a machine made by hand."""
