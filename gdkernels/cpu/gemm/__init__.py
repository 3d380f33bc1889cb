"""The matrix product on the CPU: register tiles (`tile`), panels of them (`panels`), blocking around these (`product`)."""
