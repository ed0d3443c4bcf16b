"""What a fit does besides fitting. All of them read the one `History`, which comes first."""
