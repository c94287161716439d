"""Operations with one signature and a plain reference each; knows tensors, not models."""
