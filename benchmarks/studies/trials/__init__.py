"""Ideas of later work. Each is ours with one thing changed: `trial` has ours in parts, `__main__` names them all."""
