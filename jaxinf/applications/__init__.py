"""What the paper's estimator is for, ready to run: one module or folder for each application."""
