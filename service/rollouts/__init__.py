"""Rollouts that evidence moves: outcomes are counted from the request log, judged, and written as revisions of a route."""
