"""The two doors to the deployment under test, HTTP and SQL, and who may use them."""
