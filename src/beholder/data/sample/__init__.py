"""The embedded sample: 13 free photographs, made worse in known ways, with synthetic opinions."""
