"""Max, average, power-average, adaptive and fractional pooling, and max unpooling."""
