"""Ask for an approval from any Python program, over HTTP; it imports nothing of the service but its errors."""
