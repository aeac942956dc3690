"""From a work unit to its raw rows, one module a format; nothing here judges what a row holds."""
