"""The model that comes with asymflow: network, vocabulary, library of drawings, weights, plans."""
