"""Private set intersection from a linear code, punctured trees and an oblivious key-value store: fast for large sets."""
