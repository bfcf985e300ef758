"""A judge against a table of opinions; its calibration; averages of regressors."""
