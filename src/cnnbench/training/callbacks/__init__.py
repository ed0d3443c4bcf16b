"""What a fit does besides fitting. They read the one `History`, which comes before them."""
