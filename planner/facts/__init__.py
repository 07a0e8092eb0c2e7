"""What is known: offers, profiles, service times, demand."""
