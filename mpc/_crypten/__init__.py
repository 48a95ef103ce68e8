"""What stands in for functions of CrypTen; `mpc.engine`, which alone imports CrypTen, puts it in place."""
