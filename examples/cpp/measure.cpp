#include "measure.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <opencv2/imgproc.hpp>
#include <vector>

namespace {

constexpr double margin = 0.25;  // of the coarse disc's height and width, on each side of the enlarged region
constexpr double smallest = 1e-9;

// How many rows (or columns) hold a pixel of a mask.
int lines_with(const cv::Mat& mask, int dimension) {
    cv::Mat most;
    cv::reduce(mask, most, dimension, cv::REDUCE_MAX);
    return cv::countNonZero(most);
}

cv::Mat largest_component(const cv::Mat& mask) {
    cv::Mat labels;
    const int count = cv::connectedComponents(mask, labels, 8, CV_32S);
    if (count <= 2) return mask;  // background alone, or one component
    std::vector<int> sizes(static_cast<size_t>(count), 0);
    std::for_each(labels.begin<int>(), labels.end<int>(), [&](int own) { ++sizes[static_cast<size_t>(own)]; });
    const auto largest = std::max_element(sizes.begin() + 1, sizes.end()) - sizes.begin();
    return labels == static_cast<double>(largest);
}

std::optional<Region> disc_region(const cv::Mat& disc, const cv::Mat& cup, double disc_threshold,
                                  double cup_threshold) {
    const cv::Mat coarse = largest_component(disc > disc_threshold);
    const cv::Rect box = cv::boundingRect(coarse);
    if (box.empty()) return {};
    const int dy = 2 + static_cast<int>(margin * lines_with(coarse, 1));
    const int dx = 2 + static_cast<int>(margin * lines_with(coarse, 0));
    const cv::Rect around =
        cv::Rect(box.x - dx, box.y - dy, box.width + 2 * dx, box.height + 2 * dy) & cv::Rect({}, disc.size());
    const auto enlarged = [&](const cv::Mat& map) {
        cv::Mat large;
        cv::resize(map(around).clone(), large, {}, zoom, zoom, cv::INTER_LINEAR);
        return large;
    };
    const cv::Mat fine_disc = largest_component(enlarged(disc) > disc_threshold);
    if (!cv::countNonZero(fine_disc)) return {};  // specks of a pixel, which the enlargement levels out
    const cv::Mat fine_cup = largest_component((enlarged(cup) > cup_threshold) & fine_disc);
    return Region{fine_disc, fine_cup, around.x, around.y};
}

std::optional<cv::Point2d> centre_of_mass(const cv::Mat& saliency, bool robust) {
    cv::Mat weights;
    if (!robust) {
        weights = saliency;
    } else {  // what rises above half the peak, in the component that holds it
        double peak = 0;
        cv::Point at;
        cv::minMaxLoc(saliency, nullptr, &peak, nullptr, &at);
        const float half = static_cast<float>(peak) / 2;
        cv::Mat labels;
        cv::connectedComponents(saliency > half, labels, 8, CV_32S);
        if (!labels.at<int>(at)) return {};
        weights = cv::Mat::zeros(saliency.size(), CV_32F);
        cv::Mat(saliency - half).copyTo(weights, labels == labels.at<int>(at));
    }
    const cv::Moments moments = cv::moments(weights);
    if (moments.m00 <= 0) return {};
    return cv::Point2d(moments.m10 / moments.m00, moments.m01 / moments.m00);
}

}  // namespace

cv::Point2d Region::to_map(double column, double row) const {
    const auto on_map = [](double k, int corner) { return k / zoom + corner + 0.5 / zoom - 0.5; };
    return {on_map(column, x), on_map(row, y)};
}

Anatomy measure(const cv::Mat& disc, const cv::Mat& cup, const cv::Mat& fovea, const Rules& rules) {
    Anatomy seen;
    seen.region = disc_region(disc, cup, rules.disc_threshold, rules.cup_threshold);
    if (seen.region) {
        seen.disc_px = vertical_diameter(seen.region->disc);
        seen.cup_px = vertical_diameter(seen.region->cup);
    }
    if (fovea.empty()) return seen;
    double peak = 0;
    cv::minMaxLoc(fovea, nullptr, &peak);
    if (peak >= rules.fovea_min_peak) seen.fovea = centre_of_mass(fovea, rules.fovea_robust);
    return seen;
}

int vertical_diameter(const cv::Mat& mask) {
    int most = 0;
    for (int x = 0; x < mask.cols; ++x) most = std::max(most, cv::countNonZero(mask.col(x)));
    return most;
}

std::optional<Outline> outline(const cv::Mat& mask, const Region& region, const Placement& placement) {
    const int area = cv::countNonZero(mask);
    if (!area) return {};
    const cv::Moments moments = cv::moments(mask, true);
    const cv::Point2d at = region.to_map(moments.m10 / area, moments.m01 / area);
    const cv::Point2d centre = placement.to_photo(at.x, at.y);
    const double across = 1 / placement.scale_x / zoom, down = 1 / placement.scale_y / zoom;
    return Outline{centre.x, centre.y, vertical_diameter(mask) * down, cv::boundingRect(mask).height * down,
                   area * across * down};
}

double logistic(double z) { return z >= 0 ? 1 / (1 + std::exp(-z)) : std::exp(z) / (1 + std::exp(z)); }

double logit(double probability) {
    const double p = std::clamp(probability, smallest, 1 - smallest);
    return std::log(p / (1 - p));
}

std::optional<bool> decide(double probability, double threshold, double uncertain_logit) {
    if (std::abs(logit(probability) - logit(threshold)) < uncertain_logit) return {};
    return probability >= threshold;
}

double from_threshold(double probability, double threshold) { return logistic(logit(probability) - logit(threshold)); }
