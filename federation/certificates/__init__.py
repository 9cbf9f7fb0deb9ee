"""Who is who: certificates for identities, and the keys behind them."""
