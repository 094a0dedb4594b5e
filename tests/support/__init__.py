"""What tests share: small models, servers, a way to run commands."""
