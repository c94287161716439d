"""The engines that `cpu_vs_peers.py` compares: each opens a checkpoint and says when every token came."""
