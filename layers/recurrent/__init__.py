"""LSTM, GRU and Elman networks and their single-step cells."""
