"""What is measured: the catalogue of families and the code that counts."""
