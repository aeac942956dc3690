"""The model: text in, vectors out. Knows neither Ray nor HTTP."""
