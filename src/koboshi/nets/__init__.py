"""Networks, each with a leading stack dimension K."""
