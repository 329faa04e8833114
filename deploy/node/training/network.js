// A network of linear layers with ReLU between them and softmax at the end: the loss, and its gradients.
//
// It stands for whatever a real device trains with. Layers are read off the schema: pairs N.weight, N.bias.

export class Network {
  /** `schema` is that of the model received, which may be narrower than the full one. */
  constructor(schema) {
    this.layers = schema.tensors
      .filter(({ shape, kind }) => shape.length === 2 && kind === 'weight')
      .map(({ name, shape: [outputs, inputs] }) => ({ weight: name, bias: name.replace(/weight$/, 'bias'), outputs, inputs }));
    const expected = this.layers.flatMap(({ weight, bias }) => [weight, bias]).join();
    if (schema.tensors.map(({ name }) => name).join() !== expected) throw new Error('not a model of linear layers');
  }

  /** Mean loss over a batch of {input, target}, and the gradient of each tensor. */
  gradients(tensors, batch) {
    const sums = new Map([...tensors].map(([name, values]) => [name, new Float64Array(values.length)]));
    let loss = 0;
    for (const { input, target } of batch) {
      const values = this.forward(tensors, input);
      const shares = softmax(values.at(-1));
      loss -= Math.log(Math.max(shares[target], 1e-30));
      this.backward(tensors, values, shares.map((share, k) => share - (k === target ? 1 : 0)), sums);
    }
    const mean = (sum) => Float32Array.from(sum, (value) => value / batch.length);
    return { loss: loss / batch.length, gradients: new Map([...sums].map(([name, sum]) => [name, mean(sum)])) };
  }

  /** What goes into each layer, and what comes out of the last. */
  forward(tensors, input) {
    const values = [input];
    this.layers.forEach(({ weight, bias, outputs, inputs }, number) => {
      const [w, b, x] = [tensors.get(weight), tensors.get(bias), values.at(-1)];
      const isLast = number === this.layers.length - 1;
      values.push(
        Array.from({ length: outputs }, (_, o) => {
          let sum = b[o];
          for (let i = 0; i < inputs; i++) sum += w[o * inputs + i] * x[i];
          return isLast ? sum : Math.max(sum, 0);
        }),
      );
    });
    return values;
  }

  backward(tensors, values, error, sums) {
    for (let number = this.layers.length - 1; number >= 0; number--) {
      const { weight, bias, outputs, inputs } = this.layers[number];
      const [w, x] = [tensors.get(weight), values[number]];
      const before = new Array(inputs).fill(0);
      for (let o = 0; o < outputs; o++) {
        sums.get(bias)[o] += error[o];
        for (let i = 0; i < inputs; i++) {
          sums.get(weight)[o * inputs + i] += error[o] * x[i];
          before[i] += error[o] * w[o * inputs + i];
        }
      }
      error = before.map((value, i) => (x[i] > 0 ? value : 0)); // of the input itself, nobody asks
    }
  }
}

function softmax(values) {
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
