"""One module per client: its real config file and the switches that make it use that file and no other."""
