"""A judge over HTTP: the micro-batcher, the API with its limits, and the page."""
