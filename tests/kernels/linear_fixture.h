// Calling a linear layer on a device under test.

#pragma once

#include "tests/kernels/matrix_fixture.h"

namespace nibble {

// A way to call a linear layer.
struct LinearCase {
  int64_t bound = 1;
  int64_t live = 1;
  Gaps source_gaps = {};
  Gaps target_gaps = {};
  ProductOptions products = {};
};

class LinearFixture : public MatrixTest {
 protected:
  std::vector<float> Multiply(const TestMatrix& matrix, const std::vector<float>& source,
                              const LinearCase& c, WeightVector bias = {}) {
    const MatrixShape& shape = matrix.matrix.shape;
    LinearArgs args;
    args.rows = UploadRowCount(c.bound, c.live);
    args.weight = matrix.matrix;
    args.bias = bias;
    args.source = UploadRows(c.bound, 1, shape.columns, source, c.source_gaps);
    args.target = CutRows(c.bound, 1, shape.rows, c.target_gaps);
    args.products = c.products;
    ExpectOk(ops().Linear(*queue_, args));
    const std::vector<float> found = DownloadRows(args.target, c.live);
    ExpectGuardsIntact();
    return found;
  }
};

}  // namespace nibble
