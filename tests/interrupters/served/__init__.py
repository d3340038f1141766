"""Applications that real servers serve: each has the route ``/query/<name>``, whose query ends with the client."""
