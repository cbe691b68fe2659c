"""What an app will do and has done, for people to look at."""
