"""What is on disk: run and sweep directories, their files, and nets loaded from them."""
