"""The last minutes of the service for its operators: rates, latencies, and when a model drifted."""
