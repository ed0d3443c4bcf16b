"""What runs show, and how sure one may be. Reads run directories only; loads no torch."""
