#include "graft/graph/graph.h"

#include "graft/base/error.h"

namespace graft {

Shape fixed_shape(int64_t rows, int64_t columns) { return {Rows::kFixed, rows, columns, 0}; }

std::string to_string(const Shape& shape) {
  const char* names[] = {"", "tokens", "labels", "sequences"};
  std::string rows =
      shape.kind == Rows::kFixed ? fmt::format("{}", shape.fixed_rows) : names[static_cast<size_t>(shape.kind)];
  if (shape.extra != 0) rows += fmt::format(" + {}", shape.extra);
  return fmt::format("[{}, {}]", rows, shape.columns);
}

Value Graph::bound(std::string name, Shape shape, DType dtype) {
  values_.push_back({std::move(name), ValueKind::kBound, dtype, shape, false, {}, false});
  return {static_cast<int32_t>(values_.size() - 1)};
}

Value Graph::weight(std::string name, int64_t out_features, int64_t in_features) {
  values_.push_back(
      {std::move(name), ValueKind::kWeight, dtype_, fixed_shape(out_features, in_features), false, {}, false});
  return {static_cast<int32_t>(values_.size() - 1)};
}

void Graph::set_trainable(Value parameter) {
  if (info(parameter).trainable) return;
  const Value gradient = bound("grad " + info(parameter).name, shape(parameter), dtype_);
  info(parameter).trainable = true;
  info(parameter).gradient = gradient;
}

Value Graph::activation(Shape shape, DType dtype, std::string name) {
  values_.push_back({std::move(name), ValueKind::kActivation, dtype, shape, false, {}, false});
  return {static_cast<int32_t>(values_.size() - 1)};
}

Node& Graph::add_node(const Op& op, std::vector<Value> inputs, std::any attributes, std::vector<Shape> outputs,
                      std::string role) {
  Node node;
  node.op = &op;
  node.name = scope_.empty() ? role : role.empty() ? scope_ : scope_ + "." + role;
  if (node.name.empty()) node.name = op.name;
  node.inputs = std::move(inputs);
  node.attributes = std::move(attributes);
  node.segment = segment_;
  node.backward = backward_;
  for (const Shape& shape : outputs) {
    node.outputs.push_back(activation(shape, dtype_, node.name));
  }
  nodes_.push_back(std::move(node));
  return nodes_.back();
}

}  // namespace graft
