"""The input side: files, their versions, work units, rows and what is wrong with them."""
