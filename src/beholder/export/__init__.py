"""A judge as one file: graphs, precision, parity, the size gate, the model card."""
