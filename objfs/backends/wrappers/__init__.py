"""One concern each, with the bucket's own interface: retry, timeout, concurrency, throttle,
metrics, faults.  ``objfs.backends.compose`` fixes their order."""
