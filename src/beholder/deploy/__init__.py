"""A judge on its way out: how large it is, and the forms that others want it in."""
