"""What a column is: name, dtype, unit, null and range, declared once. No I/O, no arithmetic on data."""
