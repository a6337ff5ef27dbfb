"""Network namespaces, their links, addresses and routes, and the processes run inside them."""
