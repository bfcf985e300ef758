"""Where judges are kept: a folder, one file, the Hub; what strangers' files may hold."""
