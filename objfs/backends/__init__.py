"""Buckets: places that map keys to bytes.

Owns every request that leaves for a bucket.  ``base`` holds the contract, one file per cloud keeps
it, ``wrappers`` add retry, time limits and the like, ``compose`` fixes their order, ``registry``
goes from a URL to a bucket and ``probe`` finds out whether a server keeps the contract.
"""
