"""A Flask app as any beginner writes it; `edgewater agent run examples/hello_flask.py` serves it on the device."""

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.get("/")
def hello():
    """Say hello."""
    return "Hello, World!"


@app.post("/add")
def add():
    """Add two numbers."""
    data = request.get_json()
    return jsonify(result=data["a"] + data["b"])


if __name__ == "__main__":
    app.run()
