"""The configurations of servers, as far as they speak of TLS. Pure: files are given to them."""
