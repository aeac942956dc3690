"""How good the vectors are: retrieval, similarity, classification, against published figures."""
