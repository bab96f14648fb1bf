"""What a network costs on a device: obtained by compiling for it, or by measuring on it."""
