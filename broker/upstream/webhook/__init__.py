"""Services of the operator's own, called over HTTP and told by a signature that it is the broker who calls."""
