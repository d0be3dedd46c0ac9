"""A small shop: gateway → load balancer → orders → inventory → store.

Each role is a process of its own (`python -m services.shop.gateway`, `….orders`, `….inventory`),
and all of them are in one package: they speak of the same orders and stock, and a lab that runs the
shop as a monolith takes the same handlers. What a role knows of the next one is its HTTP face.

- `documents.py`: what travels between them, and is kept in the store.
- `stock.py`: what a reservation does to the stock of a product, without I/O.
- `roles.py`: what all roles have in common: settings, life, calls to others.
- `gateway.py`, `orders.py`, `inventory.py`: a face each. `client.py`: for those outside.
"""
